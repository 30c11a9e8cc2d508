"""The topology file as types: ``load`` reads it, ``nodes`` says which nodes it describes."""
