"""What a job holds and asks for: GPU leases, owners of folders, resources, and plain Slurm."""
