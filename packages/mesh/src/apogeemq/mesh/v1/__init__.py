"""Generated messages of the mesh API, version 1; sources: proto/apogeemq/mesh/v1, made by tools/gen_proto.py."""
