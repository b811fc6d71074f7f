"""Cloud bed: a real OpenStack with two compute hosts on one machine. Start with cloud.Cloud."""
