import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewire_cli.importing.names import is_device, is_metric, metric_names, split_unit, to_device, to_metric


@pytest.mark.parametrize(
    ("heading", "metric", "unit"),
    [
        ("temperature (celsius)", "temperature", "celsius"),
        ("Relative Humidity [%]", "relative_humidity", "%"),
        ("batteryVoltage", "battery_voltage", ""),
        ("HTTPErrors", "http_errors", ""),
        ("CO₂ (ppm)", "co2", "ppm"),
        ("pH", "ph", ""),
        ("Energy kWh", "energy_kwh", ""),
        ("isActive", "is_active", ""),
        ("Temp. °C", "temp_deg_c", ""),
        ("2nd floor", "m_2nd_floor", ""),
        ("Größe", "groe", ""),
        ("PM2.5 (µg/m³)", "pm2_5", "µg/m³"),
    ],
)
def test_headings_become_names(heading, metric, unit):
    assert metric_names([heading]) == [(metric, unit)]


def test_the_unit_enters_the_name_only_to_tell_columns_apart():
    names = metric_names(["temperature (celsius)", "temperature (fahrenheit)", "humidity (%)"])
    assert [name for name, _ in names] == ["temperature_celsius", "temperature_fahrenheit", "humidity"]


def test_what_is_still_the_same_gets_a_number():
    assert [name for name, _ in metric_names(["t", "t", "T", "t_2", ""])] == [
        "t",
        "t_2",
        "t_3",
        "t_2_2",
        "column_5",
    ]


@given(st.lists(st.text(max_size=90), min_size=1, max_size=20))
def test_every_heading_becomes_a_valid_name_of_its_own(headings):
    names = [name for name, _ in metric_names(headings)]
    assert all(is_metric(name) for name in names)
    assert len(set(names)) == len(names)
    assert names == [name for name, _ in metric_names(headings)]


@given(st.from_regex(r"[a-z][a-z0-9]{0,20}(_[a-z0-9]{1,10}){0,3}", fullmatch=True))
def test_a_name_that_is_valid_stays(name):
    assert to_metric(name) == name


@given(st.text(max_size=90))
def test_devices_are_valid_or_nothing(text):
    device = to_device(text)
    assert device == "" or is_device(device)


def test_units_are_split_at_the_last_brackets():
    assert split_unit("flow (north) [l/min]") == ("flow (north)", "l/min")
    assert split_unit("(x)") == ("(x)", "")
