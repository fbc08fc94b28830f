"""Training a student on the predictions or features of a teacher."""
