"""What the factory tells of a model: pictures, tables and one page that works offline."""
