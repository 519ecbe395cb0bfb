"""What the registry keeps, and the rules that hold for it whatever stores or carries it; standard library only.

tenants        Tenant, its quotas and retention, block and unblock
devices        Device, its states, block and unblock
hierarchy      ancestors of devices, and what a new parent means for descendants
credentials    Credential
changes        what is published: objects, tombstones, signing keys
values         limits of names and labels, etags
"""
