"""The service that ``oomguard demo`` guards."""
