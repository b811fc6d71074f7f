# SPDX-License-Identifier: Apache-2.0
"""Horizon's plugin of pcmig. Which module does what:

apps        puts the form into Horizon when it starts
forms       the form Live Migrate with a box for post-copy
tabs, rest  the tab of an instance that follows its migration, and what that asks every few seconds
figures     what the Compute API says, as words and numbers for people; nothing of Horizon in it
compute     the Compute API's calls
"""
