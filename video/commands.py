COMMANDS = {
    "video": ("clip4str.video.video_command", "read the words of videos, cameras and streams", "video"),
    "photo": ("clip4str.video.photo_command", "find and read the words of whole photos", "video"),
}
