"""Ansible through ansible-runner: fresh private data for each run, no secrets in it, no strays left behind."""

from controller.adapters.ansible.playbooks import HostOutcome, PlaybookResult, run_playbook

__all__ = ["HostOutcome", "PlaybookResult", "run_playbook"]
