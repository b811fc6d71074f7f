# SPDX-License-Identifier: Apache-2.0
"""Nova's own driver and pcmig's, side by side in one cloud."""
