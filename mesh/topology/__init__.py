"""The topology file as types: ``load`` reads it, ``nodes`` lists its nodes."""
