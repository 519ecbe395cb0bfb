"""The demonstration: real readings and a simulated fleet through the whole platform, checked at the end."""
