"""What a stage would need of a slice of a pod, from its real program compiled without one."""
