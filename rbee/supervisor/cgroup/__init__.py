"""Control groups, of version 1, version 2, or both side by side. The only room that knows them.

Each worker has a group: a folder in every hierarchy that is of use. It holds the worker and all
of its descendants, also those that left its session; it limits them, counts what the kernel
killed for memory, and kills them together. Sources: the kernel's Documentation/admin-guide,
cgroup-v2.rst and cgroup-v1/{memory,freezer-subsystem,pids}.rst; cgroups(7).
"""

from rbee.supervisor.cgroup.ground import Ground, Means, folder_name
from rbee.supervisor.cgroup.group import Group
from rbee.supervisor.cgroup.outlook import foresee
from rbee.supervisor.cgroup.places import Place, own_places

__all__ = ["Ground", "Group", "Means", "Place", "folder_name", "foresee", "own_places"]
