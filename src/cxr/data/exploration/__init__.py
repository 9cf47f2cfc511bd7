"""The exploration report: one HTML file that shows a data set."""
