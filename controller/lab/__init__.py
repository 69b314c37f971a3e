"""The lab: a local server that speaks the Hetzner Cloud API, and whose servers are Debian hosts in podman containers.

Who talks to it cannot tell it from the cloud: the controller, the hcloud SDK, Debian's `hcloud` and Ansible's inventory
plugin use it through HCLOUD_ENDPOINT and HCLOUD_TOKEN. What is different:

* A server gets its type's share of this machine (machine.py), so that three of the smallest fit two cores: a `cx23`
  (2 vCPU, 4 GB) has 0.5 to 1 CPU and 512 MB to 1 GB.
* Images are Debian 12 and 13 with what the roles install; a server labelled `lab-image=bare` gets one without.
* Its user_data and SSH keys reach cloud-init by a NoCloud seed; there is no metadata address.
* IPv4 only: an IPv6 network that is asked for is recorded, not routed. Servers have no volumes or private networks.
* /_lab/ takes orders for failures (faults.py).

State is where podman is: containers, a network and a volume with the label `ratchet.lab=<name>`. The API may die at any
time; started again, it goes on with the actions it left.
"""
