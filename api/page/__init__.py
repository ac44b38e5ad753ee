"""The status page at `/`: rendered here, kept live by server-sent events, whole without JavaScript."""
