"""Tables, video decoding, clip sampling and the drawn data set."""
