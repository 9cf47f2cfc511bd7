"""External validation: a finished model judged on labelled images from elsewhere; nothing is fitted on them."""
