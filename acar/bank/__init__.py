"""The Actor-Context Feature Bank: layout, writer, seal, windowed reader (paper section 3.3)."""
