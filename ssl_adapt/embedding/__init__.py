"""Features of whole image sets as files, and the nearest neighbours of images among them."""
