"""What is wrong with the images and labels: doubtful labels, near duplicates, outliers."""
