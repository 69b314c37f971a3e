"""A real upgrade of nginx's package on a host that reaches no archive: the same package, packed from what is installed.

dpkg unpacks it over the running one and calls the maintainer's scripts, which on Debian send the master USR2 and QUIT.
"""

from __future__ import annotations

REPACK_NGINX = """
rm -rf /tmp/repacked && mkdir -p /tmp/repacked/DEBIAN
for file in $(dpkg --listfiles nginx); do [ ! -f $file ] || cp -a --parents $file /tmp/repacked; done
dpkg-query --status nginx | grep -vE '^(Status|Conffiles|Config-Version):' >/tmp/repacked/DEBIAN/control
for part in /var/lib/dpkg/info/nginx.*; do
  case $part in *.list | *.md5sums) ;; *) cp -a $part /tmp/repacked/DEBIAN/${part##*/nginx.} ;; esac
done
dpkg-deb --build /tmp/repacked /tmp/nginx.deb
"""
INSTALL_NGINX = "DEBIAN_FRONTEND=noninteractive dpkg --install /tmp/nginx.deb"
