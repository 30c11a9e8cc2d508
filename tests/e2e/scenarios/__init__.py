"""What must hold, each as a function of a running mesh; the test files say on which kind of mesh."""
