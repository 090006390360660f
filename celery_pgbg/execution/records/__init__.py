"""What the tables keep of attempts: outcomes, progress, and until when. On any session."""
