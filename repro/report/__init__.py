"""Evidence as text: tables and pages."""
