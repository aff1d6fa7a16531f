"""Every message that travels on the bus, defined here and nowhere else.

Frozen msgspec Structs; within a schema version only optional fields are added.
Golden JSON Schemas and examples lie in ``tests/contract/schemas``.
"""
