"""What a controller is asked over the mesh, by brokers and by operators."""
