"""How good results are where people judge them, measured over real talks: `make quality`."""
