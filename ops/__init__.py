"""Scripts behind compose, images, releases and clusters."""
