"""A fleet's inventory as Ansible has it: `ansible-inventory` reads it, and the controller's SSH follows it."""

from controller.adapters.inventory.fleet import load_fleet
from controller.adapters.inventory.reading import Inventory, read_inventory

__all__ = ["Inventory", "load_fleet", "read_inventory"]
