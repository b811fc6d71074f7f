"""The file for Horizon's folder local/enabled."""
