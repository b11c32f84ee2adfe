"""An RTSP server of GStreamer's, in a process of its own: run with the system's Python, which has its bindings.

    /usr/bin/python3 rtsp_server.py PORT CLIP [USER PASSWORD [basic|digest]]

Plays CLIP (H.264 in MP4), to each client from its beginning, at rtsp://127.0.0.1:PORT/live over TCP and UDP, and at
/udp over UDP only; /sound has no picture. Prints "ready PORT" when it listens; PORT 0 takes a free one.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main():
    port, clip, *login = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if login:
        server.set_auth(guard(*login))
    video = f"( filesrc location={clip} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    mounts = server.get_mount_points()
    for name, pipeline in (
        ("live", video),
        ("udp", video),
        ("sound", "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )"),
    ):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(pipeline)
        factory.set_shared(False)
        if name == "udp":
            factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
        if login:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("viewer", "media.factory.access", True)
            permissions.add_permission_for_role("viewer", "media.factory.construct", True)
            factory.set_permissions(permissions)
        mounts.add_factory("/" + name, factory)
    server.attach(None)
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


def guard(user, password, method="basic"):
    """Only this user may come in."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


main()
