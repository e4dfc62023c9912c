"""From a recogniser's scores to text: CTC search, time stamps, long recordings, subtitles."""
