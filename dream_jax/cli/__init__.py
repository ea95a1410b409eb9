"""What a command line may say."""
