"""Statistics: shares, quantiles and the curve of good requests over the rate."""
