"""Distances on the globe, for `within_radius`. One implementation, so that every store draws the same circle."""

import math

from tidewire_kit.filter.conditions import WithinBox

EARTH_RADIUS_METERS = 6_371_008.8
"""Mean radius of the Earth (IUGG)."""


def distance_meters(latitude_1: float, longitude_1: float, latitude_2: float, longitude_2: float) -> float:
    """Great-circle distance between two places in degrees (haversine)."""
    phi_1, phi_2 = math.radians(latitude_1), math.radians(latitude_2)
    sine_phi = math.sin((phi_2 - phi_1) / 2)
    sine_lambda = math.sin(math.radians(longitude_2 - longitude_1) / 2)
    h = sine_phi * sine_phi + math.cos(phi_1) * math.cos(phi_2) * sine_lambda * sine_lambda
    return 2 * EARTH_RADIUS_METERS * math.asin(math.sqrt(min(1.0, h)))


def box_around(latitude: float, longitude: float, meters: float) -> WithinBox:
    """A box that holds the whole circle, a little larger: what an index can answer before distances are computed."""
    angle = meters / EARTH_RADIUS_METERS * 1.000001 + 1e-9
    degrees = math.degrees(angle)
    south, north = latitude - degrees, latitude + degrees
    if south <= -90 or north >= 90 or angle >= math.pi / 2:
        return WithinBox(max(south, -90.0), -180.0, min(north, 90.0), 180.0)
    spread = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude))))) + 1e-6
    if spread >= 180:
        return WithinBox(south, -180.0, north, 180.0)
    west, east = longitude - spread, longitude + spread
    return WithinBox(south, west + 360 if west < -180 else west, north, east - 360 if east > 180 else east)
