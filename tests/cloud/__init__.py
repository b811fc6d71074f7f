# SPDX-License-Identifier: Apache-2.0
"""Cloud bed: a real OpenStack with two compute hosts on one machine. Start with cloud.Cloud."""
