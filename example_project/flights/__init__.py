"""An example: the flights that left New York in 2013, rolled up by SQL tasks."""
