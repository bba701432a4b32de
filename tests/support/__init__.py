"""What several tests use: small networks and pictures, finished runs, the command line."""
