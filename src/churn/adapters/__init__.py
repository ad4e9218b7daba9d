"""One module or package for each foreign system or file format."""
