"""Alertmanager's routing in place: its configuration file, route tree, groups, silences, inhibition and webhooks.

Everything here behaves as Alertmanager 0.25 does with the same file; what it does not do is refused when the file is
loaded. `config.load` reads the file, `dispatch.Dispatcher` decides what is to be sent (a state machine without I/O
or clock), `deliver.Deliverer` sends it.
"""
