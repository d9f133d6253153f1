"""The lab in the browser: pages over run folders, and tasks that a worker does for them."""
