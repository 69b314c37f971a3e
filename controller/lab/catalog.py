"""What the lab's cloud sells: locations, server types, images and prices, in the API's shapes.

The figures are close to the real ones; types that can no longer be ordered are listed as such, as the API does.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

LOCATIONS: list[Document] = [
    {
        "id": identity,
        "name": name,
        "description": description,
        "country": country,
        "city": city,
        "latitude": latitude,
        "longitude": longitude,
        "network_zone": zone,
    }
    for identity, name, description, country, city, latitude, longitude, zone in [
        (1, "fsn1", "Falkenstein DC Park 1", "DE", "Falkenstein", 50.47612, 12.370071, "eu-central"),
        (2, "nbg1", "Nuremberg DC Park 1", "DE", "Nuremberg", 49.452102, 11.076665, "eu-central"),
        (3, "hel1", "Helsinki DC Park 1", "FI", "Helsinki", 60.169855, 24.938379, "eu-central"),
        (4, "ash", "Ashburn, VA", "US", "Ashburn, VA", 39.045821, -77.487073, "us-east"),
    ]
]

_EUROPE = ("fsn1", "nbg1", "hel1")
_EVERYWHERE = (*_EUROPE, "ash")
_NO_LONGER_SOLD = {
    "cx11": ("2024-06-06T06:00:00Z", "2024-09-06T06:00:00Z"),
    "cx22": ("2025-10-16T06:00:00Z", "2025-12-31T06:00:00Z"),
}
TRAFFIC_BYTES = 20 * 2**40
VAT_PERCENT = 19

# id, name, cores, memory GB, disk GB, cpu type, category, locations, EUR a month without VAT
_TYPES: list[tuple[int, str, int, float, int, str, str, tuple[str, ...], str]] = [
    (1, "cx11", 1, 2.0, 20, "shared", "Cost-Optimized", _EUROPE, "3.29"),
    (104, "cx22", 2, 4.0, 40, "shared", "Cost-Optimized", _EUROPE, "3.79"),
    (108, "cpx12", 1, 2.0, 40, "shared", "Regular Performance", _EUROPE, "5.99"),
    (109, "cpx22", 2, 4.0, 80, "shared", "Regular Performance", _EVERYWHERE, "6.49"),
    (110, "cpx32", 4, 8.0, 160, "shared", "Regular Performance", _EVERYWHERE, "10.99"),
    (111, "cpx42", 8, 16.0, 320, "shared", "Regular Performance", _EVERYWHERE, "19.99"),
    (114, "cx23", 2, 4.0, 40, "shared", "Cost-Optimized", _EUROPE, "2.99"),
    (115, "cx33", 4, 8.0, 80, "shared", "Cost-Optimized", _EUROPE, "4.99"),
    (116, "cx43", 8, 16.0, 160, "shared", "Cost-Optimized", _EUROPE, "8.99"),
    (117, "cx53", 16, 32.0, 320, "shared", "Cost-Optimized", _EUROPE, "16.99"),
    (96, "ccx13", 2, 8.0, 80, "dedicated", "General Purpose", _EVERYWHERE, "11.99"),
    (97, "ccx23", 4, 16.0, 160, "dedicated", "General Purpose", _EVERYWHERE, "23.99"),
]


def _price(net: float) -> dict[str, str]:
    return {"net": f"{net:.10f}", "gross": f"{net * (1 + VAT_PERCENT / 100):.10f}"}


def _deprecation(name: str) -> dict[str, str] | None:
    dates = _NO_LONGER_SOLD.get(name)
    return {"announced": dates[0], "unavailable_after": dates[1]} if dates else None


def _server_type(row: tuple[int, str, int, float, int, str, str, tuple[str, ...], str]) -> Document:
    identity, name, cores, memory, disk, cpu_type, category, places, monthly = row
    deprecation = _deprecation(name)
    return {
        "id": identity,
        "name": name,
        "description": name.upper(),
        "category": category,
        "cores": cores,
        "memory": memory,
        "disk": disk,
        "storage_type": "local",
        "cpu_type": cpu_type,
        "architecture": "x86",
        "deprecated": deprecation is not None,
        "deprecation": deprecation,
        "prices": [
            {
                "location": place,
                "price_hourly": _price(float(monthly) / 624),
                "price_monthly": _price(float(monthly)),
                "included_traffic": TRAFFIC_BYTES,
                "price_per_tb_traffic": _price(1.0),
            }
            for place in places
        ],
        "locations": [
            {
                "id": location["id"],
                "name": location["name"],
                "available": deprecation is None,
                "recommended": deprecation is None,
                "deprecation": deprecation,
            }
            for location in LOCATIONS
            if location["name"] in places
        ],
    }


SERVER_TYPES: list[Document] = sorted(map(_server_type, _TYPES), key=lambda document: document["id"])

IMAGES: list[Document] = [
    {
        "id": identity,
        "type": "system",
        "status": "available",
        "name": name,
        "description": description,
        "image_size": None,
        "disk_size": 5,
        "created": created,
        "created_from": None,
        "bound_to": None,
        "os_flavor": "debian",
        "os_version": version,
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecated": None,
        "deleted": None,
        "labels": {},
        "architecture": "x86",
    }
    for identity, name, description, version, created in [
        (114690387, "debian-12", "Debian 12", "12", "2023-06-13T06:00:00Z"),
        (310557660, "debian-13", "Debian 13", "13", "2025-08-12T06:00:00Z"),
    ]
]


def pricing() -> Document:
    """The answer of GET /pricing."""
    address = {"price_hourly": _price(0.0008), "price_monthly": _price(0.5)}
    places = [location["name"] for location in LOCATIONS]
    return {
        "currency": "EUR",
        "vat_rate": f"{VAT_PERCENT:.10f}",
        "image": {"price_per_gb_month": _price(0.011)},
        "floating_ip": {"price_monthly": _price(3.0)},
        "floating_ips": [
            {"type": kind, "prices": [{"location": place, "price_monthly": _price(3.0)} for place in places]}
            for kind in ("ipv4", "ipv6")
        ],
        "primary_ips": [
            {"type": kind, "prices": [{"location": place, **address} for place in places]} for kind in ("ipv4", "ipv6")
        ],
        "server_backup": {"percentage": "20.0000000000"},
        "server_types": [{"id": kind["id"], "name": kind["name"], "prices": kind["prices"]} for kind in SERVER_TYPES],
        "load_balancer_types": [],
        "volume": {"price_per_gb_month": _price(0.044)},
    }


def find(documents: list[Document], reference: str | int) -> Document | None:
    """By name, or by id (a number, or a string of digits)."""
    return next((one for one in documents if one["name"] == reference or str(one["id"]) == str(reference)), None)
