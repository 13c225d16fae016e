"""What is written for people: tables, figures, pages, pictures, dashboards."""
