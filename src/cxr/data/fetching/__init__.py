"""What happens to the files of a data source: find the images, check them, copy them, record the fetch."""
