"""From a photograph to class activation maps and label maps."""
