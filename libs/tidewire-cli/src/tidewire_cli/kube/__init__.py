"""Kubernetes, for contexts that lead into a cluster and for the commands that set one up; needs the extra `k8s`."""
