"""What the all-in-one does with a Kubernetes cluster: keys in a Secret, and the check of a cluster."""
