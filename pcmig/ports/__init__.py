# SPDX-License-Identifier: Apache-2.0
"""Whether the ports of a guest forward on this host: its frames come in, and go out.

`nics` reads what the guest has (pure), `bridge` asks the kernel, `openvswitch` the database of Open vSwitch,
`judgement` says what the facts come to (pure), and `looking` joins them. doc/develop/ports.rst has the plan.
"""
