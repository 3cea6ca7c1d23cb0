"""What a broker can do, in its own terms; the faces call these functions and know the protocols."""
