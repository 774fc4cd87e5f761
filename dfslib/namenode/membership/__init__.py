"""The datanodes: who belongs to the cluster, who is alive, what they are told to do."""
